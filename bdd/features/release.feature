Feature: Release and residue
  Memory goes back only when it was proven zero.

  @SCR-1 @RES-5
  Scenario: A release wipes, proves, frees and gives back
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I release part-0
    Then it succeeds
    And the trail has, in this order: vram_wiped, vram_deallocated
    And used VRAM is zero
    And the device has nothing left and freed nothing unwiped

  @SCR-4
  Scenario: A second release changes nothing
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I release part-0
    And I release part-0
    Then it fails with STALE_HANDLE
    And used VRAM is as before
    And part-1 still verifies

  @SCR-1
  Scenario: An operator releases by name
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I release the shard named part-0
    Then it succeeds
    And used VRAM is zero
    When I release the shard named part-0
    Then it fails with INVALID_PARAMS

  @SCR-2 @faults
  Scenario Outline: Memory that was not proven zero is kept out of the pool
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the device will <misbehave>
    When I release part-0
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    And shard_quarantined is a critical event
    And the manager is ready
    And part-1 still verifies

    Examples:
      | misbehave         |
      | skip a fill       |
      | skip a zero proof |

  @SCR-2 @DEV-5 @faults
  Scenario Outline: Memory that does not become writable again is not wiped, and kept out of the pool
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the device will <misbehave>
    When I release part-0
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    And the manager is ready
    And part-1 still verifies
    When I go on
    And the manager is dropped
    Then the device has nothing left and freed nothing unwiped

    Examples:
      | misbehave                   |
      | refuse to switch the access |

    # Elsewhere a fill of memory that is still read-only costs the context.
    @mock
    Examples:
      | misbehave                                        |
      | confirm a switch of access that it does not make |

  @SCR-2 @SCR-3 @faults
  Scenario: What can never be wiped is never freed
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will skip every fill
    When I release part-0
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue

  @SCR-3
  Scenario: A shutdown drains, wipes and reports
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    When I shut down within 1000 ms
    Then used VRAM is zero
    And the manager has stopped for shutdown
    And the device has nothing left and freed nothing unwiped
    And the trail has, in this order: manager_draining, manager_stopped, vram_wiped, vram_deallocated, vram_wiped, vram_deallocated

  @SCR-3 @VER-5
  Scenario: A shutdown does not wait for ever, and what was in flight does not count
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And an execution of part-0 is held open
    When I shut down within 10 ms
    Then the manager has stopped for shutdown
    When the held execution finishes
    Then it fails with MANAGER_STOPPED

  @SCR-3
  Scenario: Dropping the manager wipes everything
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When the manager is dropped
    Then the device has nothing left and freed nothing unwiped

  @SCR-3 @faults
  Scenario: A dead device stops the manager, and its memory is not called wiped
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will die
    When I execute part-0
    Then it fails with CUDA_ERROR
    And the work did not run
    And trying again is pointless
    And the manager has stopped for a-lost-device
    When I go on
    And I release part-0
    Then it fails with WIPE_FAILED
    And the message contains "quarantined"
    And used VRAM is as before
