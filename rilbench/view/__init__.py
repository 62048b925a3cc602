"""The ledger in a browser: the report's pages, made when they are asked for and served here."""
