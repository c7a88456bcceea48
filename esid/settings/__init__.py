"""Settings: one frozen table, read once at the start from the environment, then from one file, then from the defaults.

Called by the commands and the daemon; nobody below them sees a `Settings`.
"""

from esid.settings.reading import FILE_SETTING, check_contact, read
from esid.settings.systemd import is_journal, service_manager
from esid.settings.table import SYSTEM_DATA, SYSTEM_FILE, TABLE, Setting, Settings
from esid.settings.urls import without_password
from esid.settings.values import duration, nearest

__all__ = [
    "FILE_SETTING",
    "SYSTEM_DATA",
    "SYSTEM_FILE",
    "TABLE",
    "Setting",
    "Settings",
    "check_contact",
    "duration",
    "is_journal",
    "nearest",
    "read",
    "service_manager",
    "without_password",
]
