"""What is given to the network beside the text: frames that are there already."""
