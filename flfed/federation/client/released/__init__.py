"""What left a site before: sets of rows, the sums over them, and what its rows have spent."""
