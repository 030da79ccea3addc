"""`habana_frameworks.torch`, Habana's bridge to PyTorch.

docs.habana.ai/en/latest/PyTorch/PyTorch_Model_Porting/Importing_PyTorch_Models/Manual_Porting.html
"""

from tests.support.habana.calls import only_documented

__getattr__ = only_documented(__name__)
