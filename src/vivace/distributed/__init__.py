"""Several processes that train one model: how they are launched, arranged, told what to do, and how work is divided."""
