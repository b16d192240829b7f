"""Car Dealer: the agent sells a car, the environment is a buyer whose brand decides how it can be sold."""
