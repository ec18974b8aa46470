"""What an evaluation shows: HTML, plots, a sheet of images, the terminal, beside the paper's figures."""
