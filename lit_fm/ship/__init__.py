"""What is made of a run: a merged model, an adapter to publish, several adapters over one backbone."""
