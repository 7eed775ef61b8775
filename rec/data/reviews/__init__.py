"""Reviews: reading public layouts, and finding what each is about and what it says of it."""
