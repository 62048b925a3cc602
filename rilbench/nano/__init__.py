"""The nano sandbox: small models and synthetic benchmarks on which the method can be checked.

Images hold real scanned digits, models are ordinary Hugging Face checkpoints in Qwen2.5-VL's own
layout, benchmarks are files in the kit's own format. `docs/nano.md` describes it.
"""
