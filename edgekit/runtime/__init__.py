"""The device's runtime: sessions, sampling and the decode loop. Needs numpy and one inference engine, never torch."""
