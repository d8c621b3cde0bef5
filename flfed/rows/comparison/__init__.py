"""What is compared at a site: shared against own model, learning curves, attacks on both."""
