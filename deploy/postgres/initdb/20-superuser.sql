-- In the container only: the superuser has no password and so cannot come over the network, where every login needs
-- one. It remains reachable from inside: docker compose exec postgres psql -U postgres ragsite
ALTER ROLE CURRENT_USER PASSWORD NULL;
