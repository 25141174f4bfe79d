"""The STDiT family: STDiT3, the network of Open-Sora 1.2 and, at a small size, of nano."""
