"""What every primitive must keep: sanity of objectives, and the contract kit."""
