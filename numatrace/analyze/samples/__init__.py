"""Access samples: columns, sums, shares with intervals, and the views of them."""
