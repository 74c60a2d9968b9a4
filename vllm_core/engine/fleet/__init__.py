"""Several engines behind one front (data parallel): which there are, who gets a request, and what they are like."""
