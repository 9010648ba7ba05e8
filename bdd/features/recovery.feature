Feature: Recovery from errors
  A call that failed took nothing with it: its memory is back or counted, and the next call is served if anything can be.

  @SEAL-1 @RES-6 @ERR-3 @faults
  Scenario Outline: Whichever call of the device fails while a shard is sealed, nothing is left and the next seal succeeds
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will fail <call> number <nth>
    When I seal part-1 from llama
    Then it fails with CUDA_ERROR
    And the message contains "999"
    And it is the device's failure and no integrity failure
    And nothing was sealed and nothing is left of it
    And the manager is ready
    And part-0 still verifies
    And part-1 can be sealed from llama after all

    Examples:
      | call       | nth |
      | allocation | 1   |
      | allocation | 2   |
      | upload     | 1   |
      | upload     | 2   |
      | fill       | 1   |
      | digest     | 1   |
      | digest     | 2   |
      | readback   | 1   |
      | readback   | 2   |
      | wait       | 1   |
      | wait       | 3   |
      | switch     | 1   |

  @VER-1 @ERR-3 @ERR-4 @faults
  Scenario Outline: A check that the device could not make is no integrity failure, and the next one serves
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will fail <call> number 1
    When I execute part-0
    Then it fails with CUDA_ERROR
    And the work did not run
    And it is the device's failure and no integrity failure
    And the trail has, in this order: execute_refused
    And trying again may help
    And the manager is ready
    When I go on
    And I execute part-0
    Then the work ran
    And it read the weights llama
    When I release part-0
    Then used VRAM is zero

    Examples:
      | call     |
      | fill     |
      | digest   |
      | readback |
      | wait     |

  @VER-7 @ERR-3 @faults
  Scenario: A batch of which one check could not be made begins nothing, and then begins whole
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the shard part-1 is sealed from llama
    And the device will fail digest number 2
    When I begin the batch part-0, part-1
    Then it fails with CUDA_ERROR
    And there is no guard
    And it is the device's failure and no integrity failure
    When I go on
    And I begin the batch part-0, part-1
    Then it succeeds
    When the batch finishes
    And I release part-0
    And I release part-1
    Then used VRAM is zero

  @VER-6 @VER-3 @faults
  Scenario: A bracket that the device could not make gives no result, and its shard stays in service
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    When I take a bracketed guard of part-0
    And the device will fail digest number 1
    And the guard finishes
    Then it fails with CUDA_ERROR
    And it is the device's failure and no integrity failure
    And the executions ended as: discarded
    When I go on
    And I take a bracketed guard of part-0
    And the guard finishes
    Then it succeeds
    And the executions ended as: discarded, finished
    When I release part-0
    Then used VRAM is zero

  @RES-6 @RES-3 @capacity
  Scenario: What did not fit fits as it is once there is room
    Given a manager on a device of 20 units with 4 units of headroom
    And weights small of 6 units
    And weights large of 10 units
    And the shard part-0 is sealed from small
    When I seal part-1 from large
    Then it fails with VRAM_OOM
    And trying again may help
    When I go on
    And I release part-0
    And I seal part-1 from large
    Then it succeeds
    And part-1 still verifies
    When I seal part-0 from small
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it
    When I go on
    And I release part-1
    Then used VRAM is zero

  @SCR-2 @RES-5 @faults @capacity
  Scenario: Memory that could not be wiped stays taken and is given to nobody, until it was wiped after all
    Given a manager on a device of 40 units with 24 units of headroom
    And weights llama of 7 units
    And the shard part-0 is sealed from llama
    And the device will skip a fill
    When I release part-0
    Then it fails with WIPE_FAILED
    And its memory is quarantined as residue
    When I go on
    # Of 16 units 8 are residue: there is room for one more, and not for two.
    And I seal part-1 from llama
    Then it succeeds
    When I seal part-2 from llama
    Then it fails with VRAM_OOM
    And the error says that 8 units were needed and 0 available
    And the driver counts the same bytes as the ledger
    And part-1 still verifies
    When I go on
    And I release part-1
    And I seal part-2 from llama
    Then it succeeds
    And its memory is still quarantined as residue
    When the manager is dropped
    Then the device has nothing left and freed nothing unwiped

  @SCR-1 @RES-5 @capacity
  Scenario: Memory that was wiped is given out again
    Given a manager on a device of 40 units with 24 units of headroom
    And weights llama of 7 units
    And the shard part-0 is sealed from llama
    When I release part-0
    And I seal part-1 from llama
    And I seal part-2 from llama
    Then it succeeds
    And part-1 still verifies
    And part-2 still verifies

  @AUD-5 @AUD-1
  Scenario: A trail that was lost for a while says how much of it is missing
    Given a manager whose policy requires an audit trail
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the audit sink fails
    When I execute part-0
    Then it fails with AUDIT_UNAVAILABLE
    And the work did not run
    When the audit sink works again
    And I execute part-0
    Then the work ran
    # A check, and the beginning that was not allowed, and its refusal.
    And the numbers of the trail say that 3 events were lost

  @AUD-5 @AUD-1
  Scenario: Where no trail is required work goes on without it, and the numbers say so too
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    And the audit sink fails
    When I execute part-0
    Then the work ran
    When the audit sink works again
    And I execute part-0
    Then the work ran
    # A check, the beginning and the end.
    And the numbers of the trail say that 3 events were lost

  @SCR-3 @VER-5 @ERR-3 @faults
  Scenario: With the device everything is lost, and each call says what that means to it
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will die
    When I verify part-0
    Then it fails with CUDA_ERROR
    And trying again is pointless
    And it is the device's failure and no integrity failure
    And the manager has stopped for a-lost-device
    And manager_stopped is a critical event
    When I go on
    And I execute part-0
    Then it fails with MANAGER_STOPPED
    And the work did not run
    When I go on
    And I seal part-1 from llama
    Then it fails with MANAGER_STOPPED
    When I go on
    And I begin the batch part-0
    Then it fails with MANAGER_STOPPED
    When I go on
    And I reseal part-0
    Then it fails with MANAGER_STOPPED
    When I go on
    And I allocate 5000 bytes of scratch for workspace
    Then it fails with MANAGER_STOPPED
    When I go on
    And I verify part-0
    Then it fails with CUDA_ERROR
    When I go on
    And I take the digest of part-0 in VRAM
    Then it fails with CUDA_ERROR
    When I go on
    And I shut down within 1000 ms
    Then the manager has stopped for a-lost-device
    And nothing was wiped and all of it is counted

  @SCR-3 @SEAL-1 @faults
  Scenario: A device that dies while a shard is sealed leaves no seal
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will die
    When I seal part-1 from llama
    Then it fails with CUDA_ERROR
    And trying again is pointless
    And it is the device's failure and no integrity failure
    And the manager has stopped for a-lost-device
    When I go on
    And I release the shard named part-1
    Then it fails with INVALID_PARAMS
    When I go on
    And I execute part-0
    Then it fails with MANAGER_STOPPED
    And the work did not run

  @SCR-4 @SEAL-4 @SEAL-7
  Scenario: A stale handle is cured by sealing the weights again, and by nothing else
    Given a manager
    And weights llama of 5000 bytes
    And the shard part-0 is sealed from llama
    When I release part-0
    And I execute part-0
    Then it fails with STALE_HANDLE
    When I go on
    And I reseal part-0
    Then it fails with STALE_HANDLE
    And trying again is pointless
    And used VRAM is zero
    When I go on
    And I seal part-0 from llama
    And I execute part-0
    Then the work ran
    When I reseal part-0
    Then it succeeds
    And the old seal of part-0 is stale whatever it is used for
    When I execute part-0
    Then it read the weights llama
