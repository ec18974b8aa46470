"""Webhooks: the ends of jobs, sent to addresses that an operator names, signed as Standard Webhooks says.

registry    the hooks: address, secret, which ends of jobs; kept in Redis
deliveries  what is to be delivered, is delivered, or was given up; in Redis too, so that no process is needed for it
deliver     the process that delivers: ``aii hooks run``

A worker that closes a job writes the event into an outbox in the same transaction. From there on, each event has one
delivery for each hook, which is repeated until the receiver takes it, for a day.
"""
