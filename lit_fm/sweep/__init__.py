"""Many fits, to find the settings that are best by a metric: `sweep --config lora.yaml --sweep sweep.yaml`."""
