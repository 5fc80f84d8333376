"""All that is known of a vector on one page."""
