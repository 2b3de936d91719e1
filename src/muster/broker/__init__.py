"""The embedded AMQP 0-9-1 broker: what the clients of Muster need, in the service's own process, in memory only."""
