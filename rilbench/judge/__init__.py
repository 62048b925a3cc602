"""LLM-as-a-judge: the prompt, the client, and an exact judge made of rules.

``prompt`` builds and reads the paper's judge prompt (Fig. 4), ``client`` asks any judge behind the
OpenAI API, ``rules`` decides by rule, and ``server`` serves the rules over that API.
"""
