"""The demo: commands of the program run on a store of real conversations."""
