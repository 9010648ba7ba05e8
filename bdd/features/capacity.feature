Feature: Capacity
  Memory is reserved before it is allocated, and the ledger is exact whatever happens.

  @RES-3 @RES-5 @capacity
  Scenario: A shard takes its image and its check space, in allocator units
    Given a manager on a device of 60 units with 6 units of headroom
    And weights llama of 1000 bytes
    When I seal part-0 from llama
    # The image and its check space: a hash of its block, one entry of the table, the result.
    Then used VRAM is 1000 bytes and 96 bytes, each in whole units
    And available VRAM is 54 units less what is used

  @RES-4
  Scenario: By default a tenth stays free
    Given a manager with the default headroom
    Then available VRAM is the device less a tenth, or less 4 GiB where that is less

  @RES-4 @RES-6 @capacity
  Scenario: A shard that does not fit is refused with need and have
    Given a manager on a device of 20 units with 4 units of headroom
    And weights small of 6 units
    And weights large of 10 units
    And the shard part-0 is sealed from small
    When I seal part-1 from large
    Then it fails with VRAM_OOM
    # 10 of image, 1 of check space; 16 less the 7 of the first.
    And the error says that 11 units were needed and 9 available
    And trying again may help
    And nothing was sealed and nothing is left of it
    And part-0 still verifies
    And part-1 can be sealed from small after all

  @RES-6 @faults
  Scenario: A late out-of-memory gives everything back
    Given a manager
    And weights llama of 70000 bytes
    And the shard part-0 is sealed from llama
    And the device will run out of memory late
    When I seal part-1 from llama
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it
    And part-0 still verifies
    And part-1 can be sealed from llama after all

  @RES-4 @faults
  Scenario: The driver's word counts when others use the device too
    Given a manager
    And weights llama of 70000 bytes
    And the device will say that no memory is free
    When I seal part-0 from llama
    Then it fails with VRAM_OOM
    And nothing was sealed and nothing is left of it

  @RES-2 @faults
  Scenario Outline: Memory that is not proven to be the device's is refused
    Given a manager
    And weights llama of 70000 bytes
    And the device will <lie>
    When I seal part-0 from llama
    Then it fails with POLICY_VIOLATION
    And the message contains "vram_only"
    And nothing was sealed and nothing is left of it
    And policy_violation is a critical event

    Examples:
      | lie                         |
      | say that memory is managed  |
      | answer residency with zeros |

  @RES-5 @RES-8
  Scenario: Two managers on one device count their own
    Given a manager
    And a second manager on the same device
    And weights llama of 70000 bytes
    And weights gemma of 9000 bytes
    And the shard part-0 is sealed from llama
    When I seal part-1 from gemma on the second manager
    Then it succeeds
    # Of each the image and its check space: hashes of 69 and 9 blocks, 3 entries and 1 of the table, results and lists.
    And used VRAM is 70000 bytes and 2368 bytes, each in whole units
    And used VRAM of the second manager is 9000 bytes and 384 bytes, each in whole units
    When I release part-0
    Then used VRAM is zero
    And used VRAM of the second manager is 9000 bytes and 384 bytes, each in whole units
    When I execute part-1 on the second manager
    Then it read the weights gemma
    When I release part-1 on the second manager
    Then used VRAM of the second manager is 0 bytes
