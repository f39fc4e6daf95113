"""The workers as the controller deals with them: gateways, orders, deaths."""
