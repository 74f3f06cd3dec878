"""The dashboard's pages, one file each; they share only `pages.shared`."""
