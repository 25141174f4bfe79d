"""Finding and loading the weights of models, autoencoders and text encoders."""
