"""Other machines, as ``--fkit-machines`` names them: how they are reached, asked and used."""
