"""The page that compares the papers' claims with the records, in sections; each has a module of its own."""
