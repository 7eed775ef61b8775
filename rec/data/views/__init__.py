"""Views: records to the rows that a kind of model trains on."""
