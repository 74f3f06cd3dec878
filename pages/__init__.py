"""The dashboard's pages, one file each; what they share are the modules below them."""
