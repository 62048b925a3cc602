"""Run rilbench's command line as if the packages of all extras were not installed."""

import sys

from rilbench.extras import EXTRAS

HIDDEN = {module for modules in EXTRAS.values() for module in modules}
HIDDEN |= {"accelerate", "datasets", "peft", "qwen_vl_utils", "vllm"}
HIDDEN -= {"filelock"}  # huggingface-hub brings it along.


class Without:
    """A finder that does not find the hidden packages."""

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):  # importlib.metadata asks the same finders.
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
assert not HIDDEN & set(sys.modules)

if __name__ == "__main__":
    from rilbench.cli import main

    main()
