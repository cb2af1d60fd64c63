"""Examples: complete applications that use `fsm` as any other program would.

Who calls this: readers, `make demo`, docker-compose.yml and the Procfile. Machines and producers import only what `fsm`
offers in public; what starts servers and clears away after itself may look into `fsm.store`. Nothing imports examples.
"""
