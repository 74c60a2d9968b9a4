"""What runs on the device: rows, inputs, the model, sampling."""
