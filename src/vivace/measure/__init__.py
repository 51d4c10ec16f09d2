"""Where a number is earned: isolated workers, paired timing, statistics, gates. All timing code lives here."""
