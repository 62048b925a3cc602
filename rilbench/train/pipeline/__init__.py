"""The stages of a run around the RIL step: preflight, collect, SFT, train, export."""
