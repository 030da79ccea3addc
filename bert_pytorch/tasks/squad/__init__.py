"""SQuAD (Rajpurkar et al. 2016, 2018): questions whose answers stand in a passage, or, from version 2.0 on, do not."""
