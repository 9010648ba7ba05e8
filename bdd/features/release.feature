Feature: Release and shutdown
  Memory goes back only when it was proven zero. What cannot be wiped is kept, counted and reported.

  @SCR-1 @RES-5
  Scenario: A release wipes, proves, frees and gives back
    Given the shard llama is sealed
    When I release llama
    Then the trail has, in this order: vram_wiped, vram_deallocated
    And used VRAM is zero
    And the device has nothing left and freed nothing unwiped

  @SCR-4
  Scenario: A second release changes nothing
    Given the shard llama is sealed
    And the shard gemma is sealed
    When I release llama
    And I release llama
    Then it fails with STALE_HANDLE
    And used VRAM is as before
    And gemma still verifies

  @SCR-1
  Scenario: An operator releases by name
    Given the shard llama is sealed
    When I release the shard named llama
    Then used VRAM is zero
    When I release the shard named llama
    Then it fails with INVALID_PARAMS

  @SCR-2 @faults
  Scenario Outline: Memory that was not proven zero is kept out of the pool until it is
    Given the shard llama is sealed
    And the shard gemma is sealed
    And the device will <misbehave>
    When I release llama
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    And shard_quarantined is a critical event
    And gemma still verifies
    When the manager is dropped
    Then the device has nothing left and freed nothing unwiped

    Examples:
      | misbehave                   |
      | skip a fill                 |
      | skip a zero proof           |
      | refuse to switch the access |

  @SCR-2 @RES-5 @faults @capacity
  Scenario: Memory that could not be wiped is given to nobody
    Given a manager on a device of 40 units with 24 units of headroom
    And weights llama of 7 units
    And weights gemma of 7 units
    And the shard llama is sealed
    And the device will skip a fill
    When I release llama
    Then it fails with WIPE_FAILED
    # Of 16 units 8 are residue: there is room for one more, and not for two.
    When I seal gemma
    Then gemma still verifies
    When I seal llama
    Then it fails with VRAM_OOM
    And the error says that 8 units were needed and 0 available

  @SCR-3
  Scenario: A shutdown drains, wipes and reports
    Given the shard llama is sealed
    And the shard gemma is sealed
    When I shut down within 1000 ms
    Then the shutdown was drained and left nothing
    And the manager has stopped for shutdown
    And the device has nothing left and freed nothing unwiped
    And the trail has, in this order: manager_draining, manager_stopped, vram_wiped, vram_deallocated, vram_wiped, vram_deallocated

  @SCR-3 @VER-12
  Scenario: What began before a shutdown counts when it ends in time
    Given the shard llama is sealed
    When I begin an execution of llama
    And a shutdown begins that waits up to 60000 ms
    And I begin an execution of llama
    Then it fails with MANAGER_STOPPED
    When I seal gemma
    Then it fails with MANAGER_STOPPED
    When the execution finishes
    Then it succeeds
    When the shutdown ends
    Then the shutdown was drained and left nothing

  @SCR-3 @VER-5
  Scenario: What is still in use at a shutdown's deadline does not count, and is wiped later
    Given the shard llama is sealed
    And the shard gemma is sealed
    When I begin an execution of llama
    And I shut down within 50 ms
    Then the shutdown left what is in use
    # It is evidence still.
    And llama still verifies
    When the execution finishes
    Then it fails with MANAGER_STOPPED
    When I release llama
    Then used VRAM is zero

  @SCR-3
  Scenario: Dropping the manager wipes everything
    Given the shard llama is sealed
    When the manager is dropped
    Then the device has nothing left and freed nothing unwiped

  @SCR-3 @ERR-3 @faults
  Scenario: A dead device stops the manager, and its memory is not called wiped
    Given the shard llama is sealed
    And the device will die
    When I execute llama
    Then it fails with CUDA_ERROR
    And the work did not run
    And trying again is pointless
    And it is the device's failure and no integrity failure
    And the manager has stopped for a-lost-device
    When I seal gemma
    Then it fails with MANAGER_STOPPED
    When I shut down within 1000 ms
    Then nothing was wiped and all of it is counted

  @RES-10 @RES-5 @AUD-1 @SCR-1
  Scenario: Working memory is zeroed, counted, named and wiped
    Given a manager
    When I allocate 100000 bytes of scratch for kv_cache
    Then the scratch is zero, counted and named scratch for kv_cache in the trail
    When the scratch is dropped
    Then the trail has, in this order: vram_wiped, vram_deallocated
    And used VRAM is zero
    And the device has nothing left and freed nothing unwiped
