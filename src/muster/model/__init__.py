"""The nouns: facts and the rules that hold for them. Standard library only."""
