"""What may leave for ESI: see `budget.Budget`, whose parts are the other files."""

from esid.esi.budget.budget import Budget
from esid.esi.budget.values import Limits, Outcome, Subject, Ticket, Wait

__all__ = ["Budget", "Limits", "Outcome", "Subject", "Ticket", "Wait"]
