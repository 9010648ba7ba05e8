Feature: Many threads at once
  One manager serves any number of threads. Each call ends as if it were alone, or says why not, and the sums are exact.

  @CON-1 @RES-5 @VER-3 @AUD-1
  Scenario: Whole lives beside each other leave an exact ledger and a trail in order
    Given a manager
    And weights llama of 20000 bytes
    When 8 threads live with a shard of llama of their own, 4 times each
    Then all of them succeeded
    And used VRAM is zero
    And the trail has no gaps
    And for each of their 8 shards the trail has 4 times, in this order: vram_allocated, vram_sealed, seal_verified, execute_started, operation_failed, execute_finished, seal_verified, execute_started, execute_finished, vram_wiped, vram_deallocated
    And the device has nothing left and freed nothing unwiped

  @CON-1 @VER-1 @AUD-1
  Scenario: Threads that check one shard at once all see it verified
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When 8 threads verify part-0 at once, 5 times each
    Then all of them succeeded
    And the trail has 40 times seal_verified
    And the trail has no gaps
    And the manager is ready

  @CON-1 @VER-5 @AUD-1
  Scenario: A change is seen by all threads that check at once, and stops the manager once
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When bit 3 of byte 40000 of part-0 flips in VRAM
    And 8 threads verify part-0 at once, 1 time each
    Then 0 of them succeeded and 8 failed with SEAL_VERIFICATION_FAILED
    And the trail has 8 times seal_verification_failed
    And the trail has 1 time shard_quarantined
    And the trail has 1 time manager_stopped
    And the trail has no gaps
    And the manager has stopped for integrity
    And part-1 still verifies

  @CON-1 @VER-7 @VER-6
  Scenario: Batches in opposite orders do not wait for each other for ever
    Given a manager
    And weights llama of 20000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the shard part-2 is sealed from llama
    When 4 threads execute, 10 times each and in opposite orders, the batch part-0, part-1, part-2
    Then all of them succeeded
    And the trail has 120 times execute_started
    And the trail pairs each beginning of work with its end
    When I release part-0
    And I release part-1
    And I release part-2
    Then used VRAM is zero

  @CON-1 @VER-7 @VER-5
  Scenario: When one has changed, batches in opposite orders are all refused and leave nothing pinned
    Given a manager that quarantines only the shard
    And weights llama of 20000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the shard part-2 is sealed from llama
    When bit 0 of byte 19999 of part-1 flips in VRAM
    And 4 threads execute, 1 time each and in opposite orders, the batch part-0, part-1, part-2
    Then 0 of them succeeded and 4 failed with SEAL_VERIFICATION_FAILED
    And the trail has 0 times execute_started
    And the trail has 1 time shard_quarantined
    When I release part-0
    And I release part-1
    And I release part-2
    Then used VRAM is zero

  @CON-1 @VER-3 @SCR-4
  Scenario: Of a beginning and a release that race, one is served and the other told why not
    Given a manager
    And weights llama of 5000 bytes
    When part-0 is sealed from llama, begun by one thread and released by another at once, 20 times
    Then it succeeds
    And used VRAM is zero
    And the trail pairs each beginning of work with its end
    And the trail has 20 times vram_wiped
    And the trail has no gaps

  @CON-1 @SCR-4 @RES-5
  Scenario: Of threads that release one shard at once, one does
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When 8 threads release part-0 at once
    Then 1 of them succeeded and 7 failed with STALE_HANDLE
    And used VRAM is zero
    And the trail has 1 time vram_wiped

  @CON-1 @RES-3 @RES-6 @capacity
  Scenario Outline: Threads that seal at once share the room to the last unit
    Given a manager on a device of <units> units with 2 units of headroom
    And weights llama of 3 units
    # 3 of image, 1 of check space for each.
    When 4 threads seal shards of llama at once
    Then <sealed> of them succeeded and <refused> failed with VRAM_OOM
    And the trail has <sealed> times vram_sealed
    And the driver counts the same bytes as the ledger
    And those that were sealed verify
    When those that were sealed are released
    Then used VRAM is zero
    And own-0 can be sealed from llama after all

    Examples:
      | units | sealed | refused |
      | 6     | 1      | 3       |
      | 10    | 2      | 2       |
      | 17    | 3      | 1       |
      | 18    | 4      | 0       |

  @CON-1 @VAL-1 @RES-3
  Scenario: Of threads that seal under one name at once, one does
    Given a manager
    And weights llama of 5000 bytes
    When 4 threads seal llama at once under the name part-0
    Then 1 of them succeeded and 3 failed with INVALID_PARAMS
    And the trail has 1 time vram_sealed
    And the driver counts the same bytes as the ledger
    When I release the shard named part-0
    Then used VRAM is zero

  @CON-1 @SCR-3
  Scenario: Work that panics beside other work poisons nothing
    Given a manager
    And weights llama of 20000 bytes
    And the shard part-0 is sealed from llama
    When 6 threads work on part-0 at once, and every other one panics
    Then all others succeeded
    And the trail has 6 times execute_started
    And the trail pairs each beginning of work with its end
    When I execute part-0
    Then the work ran
    And it read the weights llama
    When I release part-0
    Then used VRAM is zero

  @CON-1 @SCR-3 @SEAL-1 @SEAL-6
  Scenario: A source that panics takes no other seal with it
    Given a manager
    And weights llama of 200000 bytes
    When 4 threads seal shards of llama at once, and the source of every other one panics
    Then all others succeeded
    And the trail has 2 times vram_sealed
    And those that were sealed verify
    And own-1 can be sealed from llama after all
    And own-3 can be sealed from llama after all
    When those that were sealed are released
    Then used VRAM is zero
    And the device has nothing left and freed nothing unwiped

  @CON-1 @SCR-3 @VER-5
  Scenario: A shutdown amid work lets it end, and lets no more begin
    Given a manager
    And weights llama of 20000 bytes
    And the shard part-0 is sealed from llama
    When 6 threads execute part-0 over and over, and one shuts down within 60000 ms
    Then every one of them was refused in the end
    And the shutdown was drained and left nothing
    And the manager has stopped for shutdown
    And the trail pairs each beginning of work with its end
    And the trail has no gaps
    When I execute part-0
    Then it fails with MANAGER_STOPPED
    And the work did not run
