"""How fast and how large our detectors and operators are beside torchvision's, measured in turn."""
