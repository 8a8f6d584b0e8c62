"""The scratch driver keeps the contract, with what it cannot do said by name."""

from sojourn.testing import Capabilities, DriverContract
from sojourn_example_scratch import ScratchDriver


class TestScratch(DriverContract):
    capabilities = Capabilities(parallel=True, survives_restart=True, keeps_files=True, host_processes=True)

    def make_driver(self):
        return ScratchDriver()

    def make_config(self, tmp_path):
        return {"root": str(tmp_path / "scratch")}
