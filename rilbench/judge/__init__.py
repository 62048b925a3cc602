"""LLM-as-a-judge: the prompt, the clients, and judges that decide by code.

``prompt`` builds and reads the paper's judge prompt (Fig. 4). ``client`` asks any judge behind the
OpenAI API; ``proxy`` does so for the evaluation kits; ``reply`` reads what it says. ``rules``
decides by rule, ``parser`` by math-verify from what ``answers`` finds in a text; ``code_judges``
finds the judges that decide by code, and ``server`` serves one of them over the OpenAI API.
"""
