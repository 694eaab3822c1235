"""Device kits: all that a device needs to build a bundle's engine itself, prove it and measure it, with one command.

A kit is made on a workstation (`edgekit.kit.make`, which needs the exporter's packages) and run on the device
(`python -m edgekit.kit`, which needs numpy and TensorRT).
"""
