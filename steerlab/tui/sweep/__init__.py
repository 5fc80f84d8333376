"""The sweep screen: layers x doses as a heatmap, and the texts behind each cell."""
