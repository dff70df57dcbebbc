"""When does data leave? Days, holds, deletion by subject, and the certificate of each (DATA-4, P13)."""
