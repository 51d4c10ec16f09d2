"""What a part holds, and the open tools that synthesize for it, place, route and pack."""
