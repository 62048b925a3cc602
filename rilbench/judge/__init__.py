"""LLM-as-a-judge: the prompt, the clients, and judges that decide by code.

``prompt`` builds and reads the paper's judge prompt (Fig. 4). ``client`` asks any judge behind the
OpenAI API; ``proxy`` does so for the evaluation kits. ``rules`` decides by rule, ``code_judges``
finds the judges that decide by code, and ``server`` serves one of them over the OpenAI API.
"""
