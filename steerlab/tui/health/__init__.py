"""The health screen: what the store holds and what is wrong with it; garbage, a backup."""
