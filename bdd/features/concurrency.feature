Feature: Many threads at once
  One manager serves any number of threads. Each call ends as if it were alone, or says why not, and the sums are exact.

  @CON-1 @RES-5 @VER-3 @AUD-1
  Scenario: Whole lives beside each other leave an exact ledger and a trail in order
    Given a manager
    When 8 threads live with a shard of their own, 4 times each
    Then all of them succeeded
    And used VRAM is zero
    And the trail has no gaps
    And the device has nothing left and freed nothing unwiped

  @CON-1 @VER-5 @AUD-1
  Scenario: A change is seen by all threads that check at once, and stops the manager once
    Given the shard llama is sealed
    And the shard gemma is sealed
    When 8 threads verify llama at once
    Then all of them succeeded
    When bit 3 of byte 40000 of llama flips in VRAM
    And 8 threads verify llama at once
    Then 0 of them succeeded and 8 failed with SEAL_VERIFICATION_FAILED
    And the trail has 1 time shard_quarantined
    And the trail has 1 time manager_stopped
    And gemma still verifies

  @CON-1 @RES-3 @RES-6 @capacity
  Scenario Outline: Threads that seal at once share the room to the last unit
    Given a manager on a device of <units> units with 2 units of headroom
    # 3 of image, 1 of check space for each.
    When 4 threads seal shards of 3 units at once
    Then <sealed> of them succeeded and <refused> failed with VRAM_OOM
    And the trail has <sealed> times vram_sealed

    Examples:
      | units | sealed | refused |
      | 6     | 1      | 3       |
      | 17    | 3      | 1       |
      | 18    | 4      | 0       |
